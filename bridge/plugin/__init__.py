"""The DAW plug-in (C++), and its installation."""
