"""Images: files, decoded once, cropped and mirrored anew in every epoch."""
