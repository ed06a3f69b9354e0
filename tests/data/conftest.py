"""Being here puts this folder on the path, for `made_files` and `made_sources` in the folders below too."""
