"""The live server: sockets, sessions, streams, workers and jobs."""
