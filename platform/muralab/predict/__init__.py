"""Answers for files: pictures of a disk in, a table out, by a model of the registry or by a server."""
