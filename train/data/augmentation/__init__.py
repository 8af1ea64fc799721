"""What training does to images beside cropping and mirroring them (`views.py`)."""
