"""The commands that have models make something, through the service or straight at fal.ai."""
