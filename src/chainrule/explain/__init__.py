"""What is shown of a training set-up, as plain data: so far what the optimizer does to one weight."""
