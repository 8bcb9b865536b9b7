"""Long scripts: kill, corrupt, fill the disk, take the server away; `make test-slow` runs them."""
