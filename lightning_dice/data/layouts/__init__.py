"""On-disk data sets, a short file each: a function `root -> list[Case]` beside its label map."""
