"""RET v2.1: the transformer of 722,944 parameters that writes the text of an embedding."""
