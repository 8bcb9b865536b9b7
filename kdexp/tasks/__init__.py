"""Tasks: data, inputs, heads and metrics. One file a family; nothing outside this package knows what an input is."""
