-- Written by a node's agent, whole each time: there is no generation to compare.
local health = {status = "Progressing", message = "Waiting for the node's agent"}

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Deleting"
  return health
end

local status = obj.status
if status == nil or status.conditions == nil then
  return health
end

-- A node that lacks what a resource names, an interface say, waits for it.
local function waits()
  if status.exceptions == nil then
    return false
  end
  for _, exception in ipairs(status.exceptions) do
    if exception.severity ~= "Pending" then
      return false
    end
  end
  return true
end

for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.message == nil or condition.message == "" then
      health.message = condition.reason
    end
    if condition.status == "True" then
      health.status = "Healthy"
    elseif condition.status == "False" and not (condition.reason == "Exceptions" and waits()) then
      health.status = "Degraded"
    end
  end
end
return health
