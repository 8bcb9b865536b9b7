"""Who is measured: one file a way to distil. A contestant trains without end and ticks after every update."""
