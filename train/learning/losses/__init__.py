"""What a step makes small: the losses of the task, and terms on what layers show."""
