# testbed.py puts the name of the image with busybox here, and the recipe's label.
FROM BUSYBOX
HEALTHCHECK --interval=100ms --timeout=5s --retries=3 CMD test -e /tmp/well || { echo "not well yet" >&2; exit 1; }
