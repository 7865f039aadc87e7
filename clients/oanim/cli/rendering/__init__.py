"""Animations of one's own: a project to begin with, and its video, rendered here or in the cloud."""
