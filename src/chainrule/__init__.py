"""chainrule: training in which every gradient can be seen and proved."""
