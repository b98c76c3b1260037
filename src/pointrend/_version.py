"""The version, here so that writing it into a file does not import the whole front door."""

__version__ = "0.1.0"
