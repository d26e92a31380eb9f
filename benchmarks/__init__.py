"""What is timed: ratios, all measured in one run on the machine at hand."""
