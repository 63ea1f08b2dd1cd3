#!/bin/bash
# Sends what /openapi.json allows and what it forbids; no answer may be a 5xx, and each
# must be one that the document describes. With a live key everything, with a sandbox
# key what answers differently then.
set -euo pipefail
examples=${EXAMPLES:-6}
export SCHEMATHESIS_HOOKS=hooks PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}cross/clients
check() { # key, further arguments
	local key=$1
	shift
	schemathesis run "$API_URL/openapi.json" --url "$API_URL" --header "x-api-key: $key" \
		--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,unsupported_method,ignored_auth \
		--max-examples "$examples" --seed 1 --request-timeout 20 --no-color "$@"
}
check "$API_KEY"
check "$SANDBOX_KEY" --include-tag biometrics --include-tag sessions --phases coverage,fuzzing
