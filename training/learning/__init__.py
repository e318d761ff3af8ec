"""What the models learn from: labels, data sets, the season; and the three ways to learn."""
