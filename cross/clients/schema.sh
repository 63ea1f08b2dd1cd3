#!/bin/bash
# Sends what /openapi.json allows and what it forbids; no answer may be a 5xx, and each
# must be one that the document describes.
set -euo pipefail
examples=${EXAMPLES:-15}
export SCHEMATHESIS_HOOKS=hooks
exec schemathesis run "$API_URL/openapi.json" --url "$API_URL" \
	--header "x-api-key: $SANDBOX_KEY" \
	--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,unsupported_method,ignored_auth \
	--max-examples "$examples" --seed 1 --max-response-time 5 --request-timeout 20 --no-color
