"""A trained network, or a data set, in the formats of other programs: a short file each."""
