"""The steps of a build: what each is made of and the function that makes it."""
