"""Where the attention layers of a network looked, scored and drawn."""
