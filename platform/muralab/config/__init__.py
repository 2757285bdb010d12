"""The options of every command, their parsing, and the resources of this machine."""
