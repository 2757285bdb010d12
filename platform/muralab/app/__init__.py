"""The served model behind a token, limits and plain errors, with a web page."""
