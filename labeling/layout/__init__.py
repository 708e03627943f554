"""What will be where, said while the picture is noise."""
