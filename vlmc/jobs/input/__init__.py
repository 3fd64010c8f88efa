"""What a job reads: rows of images, and questions."""
