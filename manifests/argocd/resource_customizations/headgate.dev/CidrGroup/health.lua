-- Of a kind whose status the operator rolls up from the nodes. Nothing is healthy that was not
-- looked at: a status without conditions, or about another generation, is progress.
-- `cargo xtask argocd` gives each of these kinds a copy of manifests/argocd/rolled-up-health.lua.
local health = {status = "Progressing", message = "Waiting for the operator"}

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Deleting"
  return health
end

local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration == -1 then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see generation " .. tostring(obj.metadata.generation)
  return health
end

local function told(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return condition.reason or ""
end

local conditions = {}
if status.conditions ~= nil then
  for _, condition in ipairs(status.conditions) do
    conditions[condition.type] = condition
  end
end
local ready, stalled = conditions.Ready, conditions.Stalled

if stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
  health.message = told(stalled)
elseif ready ~= nil then
  health.message = told(ready)
  if ready.status == "True" then
    health.status = "Healthy"
  end
end
return health
