"""What ``kit.ascend.neighbours`` writes: the folder, the converter's configuration, and scripts that run alone."""
