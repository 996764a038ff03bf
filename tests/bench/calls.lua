-- wrk: calls of many applications in turn. The argument is a file of lines "client-id secret".
local requests = {}
local number = 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local id, secret = line:match("(%S+) (%S+)")
    local headers = { ["X-NCP-APIGW-API-KEY-ID"] = id, ["X-NCP-APIGW-API-KEY"] = secret, ["Host"] = "gate.example" }
    requests[#requests + 1] = wrk.format("GET", "/authorize/csr", headers)
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
