"""Clients of the bridge, for asyncio, for scripts and for the terminal."""
