"""The subcommand `budget`: a curve of accuracy against area, and a rule on it."""
