"""What a label means: one file per task, and the contract that all of them keep."""
