"""A client of the HTTP interface, and the shapes of its answers."""
