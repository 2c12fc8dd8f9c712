"""Why a picture got a tag: which of its parts are like it."""
