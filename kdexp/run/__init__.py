"""One run: identified, carried out stage by stage, its result put together."""
