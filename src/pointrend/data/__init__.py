"""Reading and making training images: everything here gives `structures.Sample`."""
