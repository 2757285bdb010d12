"""The served model behind limits, plain errors and, if given, a token, with a web page."""
