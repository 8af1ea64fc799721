"""The subcommand `report`: runs compared in a table and in curves."""
