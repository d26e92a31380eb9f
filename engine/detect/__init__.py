"""What is wrong with a stem: a severity for each type of artefact, over time and frequency."""
