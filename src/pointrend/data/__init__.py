"""Reading and making training pictures: everything here gives `structures.Sample`."""
