"""The configuration: its types, its defaults that depend on other values, its identity."""
