"""OpenVINO: the IR in float, and int8 through NNCF."""
