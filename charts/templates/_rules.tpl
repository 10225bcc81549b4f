{{/*
What the operator may do in the namespaces that it looks after, as a Role's or a ClusterRole's rules.
It reads runs and what it made for them, creates and deletes that, and writes the status of runs; it
changes nothing else, and reads no Secret.
*/}}
{{- define "arlow.rules" -}}
- apiGroups: [arlow.dev]
  resources: [arlowpretrains]
  verbs: [get, list, watch]
- apiGroups: [arlow.dev]
  resources: [arlowpretrains/status]
  verbs: [get, patch]
# To own what it makes, where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [arlow.dev]
  resources: [arlowpretrains/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [services, configmaps, persistentvolumeclaims]
  # One that is there already may be an earlier run's of the same name.
  verbs: [get, create]
# Why Kueue does not start a Job is told in its Workload alone.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
# Why a Job cannot make its pods is told in events alone.
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end }}

{{/* In its own namespace: the Lease that only one operator holds. */}}
{{- define "arlow.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

{{/* Users who edit runs. */}}
{{- define "arlow.editRules" -}}
- apiGroups: [arlow.dev]
  resources: [arlowpretrains]
  verbs: [get, list, watch, create, update, patch, delete, deletecollection]
{{- end }}

{{/* Users who look at runs. */}}
{{- define "arlow.viewRules" -}}
- apiGroups: [arlow.dev]
  resources: [arlowpretrains, arlowpretrains/status]
  verbs: [get, list, watch]
{{- end }}
