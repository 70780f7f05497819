"""From a table file to the inputs and targets of a model: columns, their kinds, target, split, preprocessing, scores."""
