"""What a person typed, checked when it is made: one frozen record per section."""
