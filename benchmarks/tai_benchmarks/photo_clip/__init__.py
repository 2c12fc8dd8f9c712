"""The embedded model of real photographs, built from an ImageNet tower, captions and CLIP's vectors of names."""
