"""Methods: functions from a configuration to a plan of stages. One file each; :mod:`.distill` is the ordinary one."""
