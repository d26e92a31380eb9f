"""What people and hosts talk to: presets, files in and out, the demo. Imports engine, never export."""
