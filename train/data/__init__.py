"""Images on their way from a file to a row of a batch."""
