"""Ways of distilling that are made of several trainings, or follow one."""
